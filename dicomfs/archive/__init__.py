"""Where DICOM and the store meet - ingest, catalog, check."""

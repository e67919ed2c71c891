"""Content-addressed bytes in sealed packs, knowing no DICOM."""

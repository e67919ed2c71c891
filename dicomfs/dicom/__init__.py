"""What DICOM bytes mean, with no I/O of its own."""

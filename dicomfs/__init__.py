"""dicomfs: a DICOM archive that you mount as a drive."""

__version__ = "0.1.0"

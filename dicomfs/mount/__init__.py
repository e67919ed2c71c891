"""FUSE requests answered from nodes."""

"""The probe that reads weights alone."""

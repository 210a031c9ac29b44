"""The probe that reads hidden states."""

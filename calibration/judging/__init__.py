"""How good rankings are on models left out."""

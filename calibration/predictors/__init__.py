"""From features to contributions with honest intervals."""

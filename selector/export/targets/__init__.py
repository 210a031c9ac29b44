"""One file per trainer: how it is told to train exactly some layers."""

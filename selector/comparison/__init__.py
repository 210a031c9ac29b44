"""`layerpick compare`: do sweeps rank layers alike?"""

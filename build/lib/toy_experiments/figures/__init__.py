"""Figures: the house style and the plots that several lessons share. May import: imf_lite."""

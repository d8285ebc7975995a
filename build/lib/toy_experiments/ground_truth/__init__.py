"""Ground truth in the plane: point sets, fields in closed form, distances. May import: imf_lite."""

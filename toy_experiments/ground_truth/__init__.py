"""Ground truth for 2-D toy data: point sets, fields in closed form, distances. May import: imf_lite."""

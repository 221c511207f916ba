"""Pictures, as plain functions on arrays: decoded, cropped, resized, encoded, drawn as sketches."""

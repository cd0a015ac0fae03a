"""Files that a run consists of: how they are written whole and read strictly."""

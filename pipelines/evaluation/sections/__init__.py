"""The parts of an evaluation: reconstruction, prior, generation, memorisation."""

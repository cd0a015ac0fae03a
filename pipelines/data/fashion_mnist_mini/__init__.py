"""The image set that comes with the package: a balanced part of Fashion-MNIST (see LICENSE)."""

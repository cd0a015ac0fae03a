"""Convolutional encoder and decoder, and the layers they are made of."""

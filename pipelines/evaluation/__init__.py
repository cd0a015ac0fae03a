"""How good a trained model is: figures over whole splits, and what they mean."""

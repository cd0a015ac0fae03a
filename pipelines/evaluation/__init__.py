"""How good a trained model is: metrics over whole splits, and what they mean."""

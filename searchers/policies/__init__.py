"""Ask/tell policies: which learning rate to try next, how far to run it, when to stop. No Ray, no Optuna."""

"""The loss over tokens of one run: power laws, extrapolation, decay."""

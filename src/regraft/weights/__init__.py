"""Files -> `WeightFile` -> `MatchReport`, in numpy only."""

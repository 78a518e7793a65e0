"""How far a prediction may be believed: calibration, intervals, sets of classes, images of no known kind."""

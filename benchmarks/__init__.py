"""What mechvrp claims about speed, measured as ratios in one run: ``make bench``."""

"""What an evaluation has ranked, for people to look at: rank lists as pictures, and a report as one HTML file."""

"""The report: evaluations of several methods on one data set as a static page."""

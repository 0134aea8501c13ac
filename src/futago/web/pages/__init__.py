"""The pages for people, one room per subject; the templates beside them hold the looks."""

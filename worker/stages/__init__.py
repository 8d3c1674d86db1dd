"""The stages of a job, one a file: each takes the run and what the stages before it have found."""

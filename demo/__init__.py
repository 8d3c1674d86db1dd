"""`make demo`: a support desk with three teams, and one student for all of them."""

"""Campaigns: a fixed set of prompts × models × raters.

prompts.py      what raters are shown, from a list or a file
store.py        campaigns in the database: made, listed, closed, deleted
progress.py     a campaign on the wire, with how far it is
answers.py      what is to be generated, and what became of it, one transaction an answer
generator.py    generates the answers beside everything else, and goes on after a crash
assignments.py  which pair a rater judges next
invitations.py  a rater's way in, and what it opens
"""

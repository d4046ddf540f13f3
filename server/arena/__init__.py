"""People compare answers, and what their ratings come to.

comparisons   two answers to one prompt
campaigns     prompts and pairs to be rated, by invitation
ratings       verdicts, and who may give them
leaderboard   strengths of models from ratings
preferences   pairs to train on
"""

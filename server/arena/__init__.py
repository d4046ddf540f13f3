"""People compare answers: comparisons, ratings, and what follows from them.

comparisons   two answers to one prompt
campaigns     prompts and pairs to be rated, by invitation
ratings       storing and reading ratings, and who may give them
leaderboard   strengths of models from ratings
preferences   preference pairs for training
"""

"""layerpick: which single decoder layer of a language model should reinforcement learning train?"""

"""Scores of MMLU and CMMLU of checkpoints.

spec          `ScoresSpec`: what to score, with what and when; one object for all layers
run           `evaluate`: one evaluation of one model
backends      the programs that put the questions to the model: OpenCompass, lm-eval, or a class of your own
evaluator     `Evaluator`: evaluations as Ray tasks beside training, of the checkpoints in the `queue`
trainable     `scored_pretrain`: a Ray Tune trainable with scores in its last result
tables        scored questions and attempts on disk
environment   OpenCompass's own Python environment
"""

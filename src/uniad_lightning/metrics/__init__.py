"""What an evaluation measures: AUROC, average precision, F1-max and AUPRO, by category and pooled."""

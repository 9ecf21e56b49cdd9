"""Scores, tables and pictures of what trained models predict."""

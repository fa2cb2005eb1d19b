"""Figures as Vega-Lite specs: what is drawn of records, profiles and histories."""

"""A Streamlit page with only one chart of synthetic points: the minimum cost of any Streamlit page."""

import plotly.graph_objects as go
import streamlit as st

POINTS = 1000

st.plotly_chart(go.Figure(go.Scatter(x=list(range(POINTS)), y=[step % 97 for step in range(POINTS)], mode="lines")))

"""Where examples come from: finding, fetching and checking data sets."""

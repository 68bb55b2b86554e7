"""What operators see: versions, one metrics page for several processes, traces, the dashboard."""

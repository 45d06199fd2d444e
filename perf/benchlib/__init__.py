"""What perf/bench, perf/steady and perf/profile share: see perf/README.md."""

"""Nothing that was acknowledged is lost, altered or judged wrongly, whatever fails: the fault matrix and its oracle."""

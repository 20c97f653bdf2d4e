"""The nightly backfill under Airflow, Dagster, Prefect, Kubernetes and systemd. All of them run or call the same thing.

Which ends are worth another try: an exception of the API or the network, exit code 4, and an end by a signal (129, 130, 143):
the next try reads the rest. The other ends stay the same until a person acts (2, 3, 5) or until the next night (1).
"""

#!/usr/bin/env bash
# A CI job that gates a model server: its image tokens to a single one, its times to a baseline in the repository.
#
#   URL=http://127.0.0.1:8000/v1 examples/gate_server.sh --served-by vllm --on h200
#
# The first run accepts what it measures, in eight rounds, and asks for the file to be committed. Every later run fails
# with exit code 1 when a page has other tokens or a time is slower than the baseline by more than the threshold, and
# leaves a page that says what. Arguments are those of `nox -s serve`; docs/serve.md has them all.
set -euo pipefail

URL=${URL:?the URL of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1}
BASELINE=${BASELINE:-baselines/served.json}
RESULTS=${RESULTS:-results}

serve() {
    "${PYTHON:-python}" -m fixtures.serving --url "$URL" --output-dir "$RESULTS" --baseline "$BASELINE" "$@"
}

if [ ! -f "$BASELINE" ]; then
    echo "no baseline yet: accepting the times of this server"
    serve --refresh "$@"
    echo "commit $BASELINE, and run this job again"
    exit 0
fi

# A time that cannot be judged (another GPU, too much noise, no such load in the baseline) fails too: a gate that
# judges nothing would be green.
code=0
serve --require-baseline "$@" || code=$?

# The page of the run, where the CI shows one.
if [ -n "${GITHUB_STEP_SUMMARY:-}" ] && [ -f "$RESULTS/latest-serve/report.md" ]; then
    cat "$RESULTS/latest-serve/report.md" >> "$GITHUB_STEP_SUMMARY"
fi
exit "$code"

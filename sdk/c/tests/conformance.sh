#!/bin/sh
# Folds every event file with the native conformance projection in batches of several sizes,
# with and without dropped rows. Arguments: the program, and the folder of the suite.
set -u
failed=0 count=0
for events in "$2"/events/*.ndjson; do
    name=$(basename "$events" .ndjson)
    parameters=$2/events/$name.parameters.json
    [ -f "$parameters" ] || parameters=-
    for cut in "1 0" "1 1" "7 0" "7 1" "16384 0"; do
        count=$((count + 1))
        # shellcheck disable=SC2086
        if ! ASAN_OPTIONS=detect_leaks=0 "$1" "$events" "$parameters" $cut | cmp -s - "$2/expected/$name.txt"; then
            echo "$name differs with batches and drops of $cut"
            failed=1
        fi
    done
done
[ "$failed" = 0 ] && echo "$count native folds of the conformance suite are as expected"
exit "$failed"

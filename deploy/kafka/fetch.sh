#!/usr/bin/env bash
# Fetches a real Kafka broker into .engines/kafka/libs, once.
#
#   fetch.sh             fails, with a reason, where it cannot
#   fetch.sh --optional  says so and succeeds
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

libs=.engines/kafka/libs
done=.engines/kafka/fetched
pom=deploy/kafka/pom.xml

missing() {
  {
    echo "=================================================================="
    echo "NO REAL KAFKA: $1"
    echo "Tests run on kfake only. For the real broker: install a JDK (17 or"
    echo "later) and Maven, then run 'make engines'."
    echo "=================================================================="
  } >&2
  if [ "${optional}" = yes ]; then exit 0; fi
  exit 1
}

optional=no
if [ "${1:-}" = --optional ]; then optional=yes; fi

# What is there already is complete if the mark is newer than the pom.
if [ "${done}" -nt "${pom}" ]; then exit 0; fi

command -v java >/dev/null || missing "there is no java on the PATH"
command -v mvn >/dev/null || missing "there is no mvn (Maven) on the PATH"
version=$(java -version 2>&1 | sed -nE 's/.* version "([0-9]+).*/\1/p' | head -n 1)
if [ "${version:-0}" -lt 17 ]; then missing "java is version ${version:-unknown}, Kafka needs 17"; fi

echo "fetching Kafka into ${libs} ..."
rm -rf "${libs}"
mkdir -p .engines/kafka
if ! mvn --quiet --batch-mode --no-transfer-progress --file "${pom}" \
  dependency:copy-dependencies -DoutputDirectory="${PWD}/${libs}" >.engines/kafka/fetch.log 2>&1; then
  tail -n 20 .engines/kafka/fetch.log >&2
  missing "Maven could not fetch it"
fi
touch "${done}"

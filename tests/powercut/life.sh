#!/bin/sh
# One life in the machine: hands out what the last cut left, then works until the plug is pulled.
#   life.sh NUMBER LEFT FRESH STATE WORKER...
# NUMBER names the files in /mnt/out. LEFT: the state directory to hand out first. FRESH: an archive of the share to
# unpack into STATE; "-" stands for none of these two. STATE: the state directory of this life, handed out once more
# when the work is done. WORKER: the arguments of tests.powercut.guest. What is written to /mnt/out is in a file of the
# host when the system call returns (9p without a cache), so no cut takes it back.
set -eu
read -r began _ </proc/uptime
export POWERCUT_BEGAN="$began" PYTHONPATH=/opt/powercut/site:/opt/powercut/code
number=$1 left=$2 fresh=$3 state=$4
shift 4
cd /opt/powercut/code

# hand_out FOLDER NAME: appears there as a whole
hand_out() {
    mkdir -p "$1"
    cp -R "$1" "/mnt/out/$2.part"
    mv "/mnt/out/$2.part" "/mnt/out/$2"
}

if [ "$left" != - ]; then hand_out "$left" "left-$number"; fi
if [ "$fresh" != - ]; then
    rm -rf "$state"
    mkdir "$state"
    tar -C "$state" -xf "/mnt/share/$fresh"
    sync
fi
status=0
python3 -m tests.powercut.guest "/mnt/out/told-$number" "/mnt/out/service-$number" "$@" || status=$?
hand_out "$state" "end-$number"
exit "$status"

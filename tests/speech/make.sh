#!/bin/sh
# Makes the files here, with espeak-ng and ffmpeg as Debian has them: what phones send, as it is on the wire,
# without any header. The other levels of the .slin files, and G.711, are made by the tests themselves.
set -eu
espeak-ng -v en-us -s 160 -w /tmp/speech.wav "She would like to change her appointment on Thursday."
ffmpeg -v error -y -f lavfi -i "aevalsrc='0.2*(sin(2*PI*220*t*floor(1+mod(t*2,4))/2)\
+0.5*sin(2*PI*440*t*floor(1+mod(t*2,4))/2)+0.3*sin(2*PI*661*t))+0.15*sin(2*PI*110*t)\
+0.25*(random(0)-0.5)*exp(-30*mod(t,0.25))':d=3:s=48000" /tmp/music.wav
ffmpeg -v error -y -f lavfi -i anullsrc=d=1:r=48000:cl=mono /tmp/silence.wav
for sound in speech music; do
    ffmpeg -v error -y -t 2.5 -i /tmp/$sound.wav -ac 1 -ar 8000 -f s16le $sound.slin
    for below in 0 15 30; do
        level="volume=-${below}dB"
        ffmpeg -v error -y -t 2.5 -i /tmp/$sound.wav -af $level -ac 1 -ar 16000 -f g722 $sound-$below.g722
        ffmpeg -v error -y -t 2.5 -i /tmp/$sound.wav -af $level -ac 1 -ar 8000 -f gsm $sound-$below.gsm
    done
done
ffmpeg -v error -y -i /tmp/silence.wav -ar 16000 -f g722 silence.g722
ffmpeg -v error -y -i /tmp/silence.wav -ar 8000 -f gsm silence.gsm

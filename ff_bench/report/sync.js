// Videos in step: one clock, the longest video, which the others follow.
class Together {
  constructor(fps, changed) {
    this.fps = fps; this.changed = changed; this.videos = []; this.playing = false; this.speed = 1; this.wanted = 0;
    this.starts = 0;
    const follow = () => { if (this.playing) this.follow(); requestAnimationFrame(follow); };
    requestAnimationFrame(follow);
  }
  use(videos, time = 0) {
    this.pause();
    this.videos = videos; this.wanted = time;
    for (const video of videos) {
      if (!video.getAttribute("src")) video.src = video.dataset.source;
      video.playbackRate = this.speed;
      video.onloadedmetadata = () => { this.place(video); this.changed(); };
      video.onerror = () => { video.title = "this video cannot be read"; video.classList.add("broken"); this.changed(); };
      if (video.readyState > 0) this.place(video);
    }
    this.changed();
  }
  get lead() {
    const loaded = this.videos.filter(video => video.duration > 0);
    return loaded.length ? loaded.reduce((first, other) => other.duration > first.duration + 1e-3 ? other : first) : null;
  }
  get length() { return this.lead ? this.lead.duration : 0; }
  get frames() { return Math.max(1, Math.round(this.length * this.fps)); }
  get time() { return this.playing && this.lead ? this.lead.currentTime : this.wanted; }
  get frame() { return Math.min(this.frames - 1, Math.floor(this.time * this.fps + 1e-6)); }
  // The middle of a frame: at its edge browsers may show either neighbour.
  place(video) {
    const middle = (this.frame + 0.5) / this.fps;
    video.currentTime = Math.max(0, Math.min(middle, video.duration - 0.5 / this.fps));
  }
  seek(time) {
    const running = this.playing;
    if (running) this.pause();
    this.wanted = Math.max(0, Math.min(time, this.length));
    this.videos.forEach(video => this.place(video));
    this.changed();
    if (running && !this.atEnd) this.play();
  }
  step(frames) { this.pause(); this.seek((this.frame + frames + 0.5) / this.fps); }
  get atEnd() { return this.length > 0 && this.frame >= this.frames - 1; }
  async play() {
    if (this.playing || !this.lead) return;
    if (this.atEnd) this.seek(0);
    const start = ++this.starts, usable = this.videos.filter(video => video.duration > 0);
    const isReady = video => video.readyState >= 3 && !video.seeking;
    for (let tries = 0; tries < 100 && !usable.every(isReady); tries++) await new Promise(done => setTimeout(done, 20));
    if (start !== this.starts) return;
    this.playing = true; this.changed();
    for (const video of usable) {
      video.playbackRate = this.speed;
      if (this.wanted < video.duration) video.play().catch(() => {});
    }
  }
  pause() {
    this.starts++;
    if (!this.playing) return;
    this.wanted = Math.min(this.time, this.length - 0.5 / this.fps); this.playing = false;
    for (const video of this.videos) { video.pause(); video.playbackRate = this.speed; if (video.duration > 0) this.place(video); }
    this.changed();
  }
  toggle() { if (this.playing) this.pause(); else this.play(); }
  setSpeed(speed) { this.speed = speed; this.videos.forEach(video => { video.playbackRate = speed; }); }
  // A small lag is made good by playing a little faster or slower, a large one by a jump.
  follow() {
    const lead = this.lead;
    if (!lead) return;
    if (lead.ended) { this.pause(); return; }
    for (const video of this.videos) {
      if (video === lead || !(video.duration > 0) || video.ended || video.seeking) continue;
      const lag = lead.currentTime - video.currentTime;
      if (Math.abs(lag) > 6 / this.fps) video.currentTime = Math.min(lead.currentTime, video.duration);
      const nudge = Math.abs(lag) > 0.1 / this.fps ? Math.max(-0.2, Math.min(0.2, 3 * lag)) : 0;
      const rate = this.speed * (1 + nudge);
      if (Math.abs(video.playbackRate - rate) > 0.01) video.playbackRate = rate;
    }
    this.changed();
  }
}
// Keys that belong to what has the focus: a list or a field takes all, a button and a slider some.
function isTaken(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return true;
  const target = event.target, name = target.tagName;
  if (name === "SELECT" || name === "TEXTAREA" || target.isContentEditable) return true;
  if (name === "INPUT") return target.type !== "range" || event.key.startsWith("Arrow");
  return (name === "BUTTON" || name === "A" || name === "SUMMARY") && (event.key === " " || event.key === "Enter");
}

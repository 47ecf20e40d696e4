for (const head of document.querySelectorAll("th")) {
  const sort = () => {
    const body = head.closest("table").tBodies[0], place = head.cellIndex;
    const down = head.dataset.down = head.dataset.down === "1" ? "0" : "1";
    const isDown = (down === "1") === place > 1;
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", isDown ? "descending" : "ascending");
    const key = row => row.cells[place].dataset.sort;
    const order = (a, b) => {
      const x = key(a), y = key(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      const gap = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return isDown ? -gap : gap;
    };
    body.append(...[...body.rows].sort(order));
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
}

class Player {
  constructor(set) {
    this.set = set;
    const find = name => set.querySelector(name);
    this.choice = find(".choice"); this.bar = find("input"); this.clock = find("output"); this.button = find(".play");
    this.groups = [...set.querySelectorAll(".group")];
    this.picks = JSON.parse(set.dataset.picks);
    this.together = new Together(Number(set.dataset.fps), () => this.show());
    this.choice.addEventListener("change", () => this.choose(Number(this.choice.value)));
    find(".speed").addEventListener("change", event => this.together.setSpeed(Number(event.target.value)));
    this.button.addEventListener("click", () => this.together.toggle());
    this.bar.addEventListener("input", () => this.together.seek(Number(this.bar.value)));
    for (const button of set.querySelectorAll("[data-pick]"))
      button.addEventListener("click", () => this.choose(this.picksHere[button.dataset.pick]));
    for (const group of this.groups)
      [...group.querySelectorAll(".card")].forEach((card, place) =>
        card.querySelector(".solo").addEventListener("click", () => this.solo(place)));
    set.addEventListener("pointerdown", () => { Player.active = this; });
    this.choose(Number(this.choice.value));
  }
  get group() { return this.groups[this.place]; }
  get picksHere() { return this.picks[this.group.dataset.budget] || {}; }
  choose(place) {
    if (!(place >= 0)) return;
    const time = this.together.time;
    this.place = place; this.choice.value = place;
    this.groups.forEach((group, other) => { group.hidden = other !== place; });
    for (const button of this.set.querySelectorAll("[data-pick]")) {
      button.disabled = !(button.dataset.pick in this.picksHere);
      button.setAttribute("aria-pressed", this.picksHere[button.dataset.pick] === place);
    }
    this.together.use([...this.group.querySelectorAll("video")], time);
  }
  solo(place) {
    const cards = [...this.group.querySelectorAll(".card")];
    if (place >= cards.length) return;
    const alone = place >= 0 && !cards[place].classList.contains("alone");
    this.group.querySelector(".videos").classList.toggle("soloed", alone);
    cards.forEach((card, other) => card.classList.toggle("alone", alone && other === place));
  }
  show() {
    const { time, length, playing, fps } = this.together;
    this.button.textContent = playing ? "Pause" : "Play";
    this.bar.max = length || 1; this.bar.step = 1 / fps; this.bar.value = time;
    this.clock.value = time.toFixed(1) + " / " + length.toFixed(1) + " s";
    this.group.style.setProperty("--now", length ? Math.min(1, time / length) : 0);
    for (const output of this.group.querySelectorAll("output[data-steps]")) {
      output.steps = output.steps || JSON.parse(output.dataset.steps);
      const step = output.steps.find(step => step[0] <= time && time < step[1]);
      output.value = step ? step[2].toFixed(Number(output.dataset.digits)) : "–";
    }
    for (const output of this.group.querySelectorAll("output[data-held]")) {
      output.held = output.held || JSON.parse(output.dataset.held);
      const held = output.held.filter(held => held[0] <= time + 1e-6).pop();
      output.value = held && held[2] ? Math.round(100 * held[1]) + " %, oldest " + held[2].toFixed(1) + " s" : "–";
    }
  }
  key(event) {
    const far = event.shiftKey ? Math.round(this.together.fps) : 1;
    if (event.key === " ") this.together.toggle();
    else if (event.key === "ArrowRight") this.together.step(far);
    else if (event.key === "ArrowLeft") this.together.step(-far);
    else if (event.key === "ArrowDown") this.choose(Math.min(this.groups.length - 1, this.place + 1));
    else if (event.key === "ArrowUp") this.choose(Math.max(0, this.place - 1));
    else if (event.key === "0" || event.key === "Escape") this.solo(-1);
    else if (/^[1-9]$/.test(event.key)) this.solo(Number(event.key) - 1);
    else return;
    event.preventDefault();
  }
}
const players = new Map([...document.querySelectorAll(".set")].map(set => [set, new Player(set)]));
// Keys go to the player in view; of several, to the one touched last. Out of view they scroll as ever.
function inView() {
  const seen = [...players.values()].filter(({ set }) => {
    const box = set.getBoundingClientRect();
    return box.top < 0.75 * innerHeight && box.bottom > 0.25 * innerHeight;
  });
  return seen.includes(Player.active) ? Player.active : seen[0];
}
document.addEventListener("keydown", event => {
  const player = isTaken(event) ? null : inView();
  if (player) player.key(event);
});
for (const button of document.querySelectorAll("[data-watch]")) {
  button.addEventListener("click", () => {
    const set = button.closest("section").querySelector(".set"), player = players.get(set);
    player.choose(Number(button.dataset.watch));
    Player.active = player;
    set.scrollIntoView({ block: "start" });
  });
}

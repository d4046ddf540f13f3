// Keeps `<details id=…>` open when its live block is redrawn.
const unfolded = new Set();
element.addEventListener('toggle', event => {
  if (event.target.open) unfolded.add(event.target.id);
  else unfolded.delete(event.target.id);
}, true);
watch('value', () => { for (const id of unfolded) document.getElementById(id)?.setAttribute('open', ''); });

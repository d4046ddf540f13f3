// Downloads and imports of adapters: files are sent between browser and API, not through the pages' handlers.
const byId = id => document.getElementById(id);
let sent = null;  // what is sent about the upload in progress
const tell = words => {
  [byId('models-import-status').textContent, byId('models-import').disabled] = [words, sent !== null];
};
// The block may be redrawn meanwhile.
watch('value', () => { if (sent !== null) requestAnimationFrame(() => { if (sent !== null) tell(sent); }); });
const imported = button => {
  if (sent !== null) return;
  const [file, name, sameBase] = ['models-file', 'models-new-name', 'models-same-base'].map(byId);
  if (!file.files[0]) { tell(button.dataset.missing); file.focus(); return; }
  const form = new FormData();
  if (name.value.trim()) form.append('name', name.value.trim());
  if (sameBase.checked) form.append('same_base', 'true');
  form.append('file', file.files[0]);
  const request = new XMLHttpRequest();
  request.open('POST', '/v1/adapters');
  for (const [header, value] of Object.entries(tuneloop.authorization())) request.setRequestHeader(header, value);
  request.upload.onprogress = event => {
    const share = Math.round(100 * event.loaded / event.total);
    sent = share < 100 ? `${button.dataset.sending} ${share}%` : button.dataset.checking;
    tell(sent);
  };
  const upload = String(Date.now());
  const end = ([action, values]) => { sent = null; tell(''); act(action, { ...values, upload }); };
  request.onerror = () => end(['refused', { detail: '', kind: 'unreachable' }]);
  request.onload = () => {
    const answer = tuneloop.parsed(request.responseText);
    if (request.status < 400) {
      byId('models-file').value = byId('models-new-name').value = '';
      end(['imported', { model: answer.model }]);
    } else end(['refused', { detail: answer.error?.message || `HTTP ${request.status}`, status: String(request.status) }]);
  };
  sent = '';
  tell(sent);
  act('importing', { upload });
  request.send(form);
};
const downloaded = async button => {
  button.disabled = true;
  try { await tuneloop.download(button.dataset.download, button.dataset.name); }
  catch (error) { act('download_failed', { detail: error.message || '' }); }
  finally { button.disabled = false; }
};
element.addEventListener('click', event => {
  const clicked = event.target.closest('[data-import], [data-download]');
  if (clicked) ('import' in clicked.dataset ? imported : downloaded)(clicked);
});
